typedef int settings_pending;
