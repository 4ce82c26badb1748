typedef int registry_pending;
