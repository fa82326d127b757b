"""What is worth another try: what is outside of us. Bad data stays bad."""

from datetime import timedelta
from typing import Any

from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

from imagecore.errors import ImageflowsError, InfrastructureError

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=InfrastructureError,
            action=RetryAction.RETRY,
            reason="something outside is unavailable; it may be back",
        ),
        RetryRule(
            exception=[ImageflowsError, TypeError, ValueError, KeyError],
            action=RetryAction.FAIL,
            reason="the same input would fail the same way",
        ),
    ]
)

DEFAULT_ARGS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=15),
    "retry_policy": RETRY_POLICY,
}
"""`default_args` of every DAG here."""
