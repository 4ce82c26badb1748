typedef int runner_pending;
