typedef int light_pending;
