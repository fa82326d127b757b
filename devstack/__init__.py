"""The stack on one machine: S3, SQS and Airflow, below one folder, reachable from here only."""
