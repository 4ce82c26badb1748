typedef int pacer_pending;
