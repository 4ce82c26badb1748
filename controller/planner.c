typedef int planner_pending;
