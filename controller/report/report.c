typedef int report_pending;
