"""What a run was like: its log folder, its page, its pictures."""
