typedef int jitter_pending;
