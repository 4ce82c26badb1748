typedef int scheduler_pending;
