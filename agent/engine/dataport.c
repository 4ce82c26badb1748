typedef int dataport_pending;
