typedef int seqtrack_pending;
