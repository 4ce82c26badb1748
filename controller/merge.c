typedef int merge_pending;
