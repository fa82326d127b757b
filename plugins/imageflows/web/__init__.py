"""The page "Images" of Airflow's UI: what came of a run, picture by picture.

Everything here is a GET, and changes nothing. What people do on the page (retry, run again,
approve) their browser asks of Airflow's own REST API, under their own rights and in its audit log.
"""
