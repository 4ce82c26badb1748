typedef int gateway_pending;
