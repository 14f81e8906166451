"""Workers that are processes: the parent's side, and the child's."""
