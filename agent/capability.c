typedef int capability_pending;
