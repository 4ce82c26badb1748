typedef int director_pending;
