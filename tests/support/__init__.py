"""What several tests share: servers of other people's, started privately, and small helpers."""
