typedef int control_pending;
