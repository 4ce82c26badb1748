typedef int spool_pending;
