"""SUPERB on a student: s3prl's own tasks in processes of their own, and their results."""
