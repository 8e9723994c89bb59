"""What every room speaks: the step graph, its operations, exact rewrites, the plan, the layout of lanes."""
