"""What a run is watched for, how workers record it, and what the coordinator makes of it."""
