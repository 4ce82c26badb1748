typedef int session_pending;
