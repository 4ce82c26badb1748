typedef int credentials_pending;
