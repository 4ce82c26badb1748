typedef int commands_pending;
