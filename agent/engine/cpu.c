typedef int cpu_pending;
