typedef int guard_pending;
