typedef int zap_pending;
