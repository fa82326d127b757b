"""What the workflows compute: pure Python, no Airflow, no global state."""
