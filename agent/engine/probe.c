typedef int probe_pending;
