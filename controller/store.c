typedef int store_pending;
