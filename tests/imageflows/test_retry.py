"""What outside is broken is tried again; what is wrong stays wrong."""

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from imagecore.errors import DiskFull, InfrastructureError, ItemFailed, PlanRefused
from imageflows.operators.batch import ItemsFailed
from imageflows.operators.report import RunFailed
from imageflows.retry import RETRY_POLICY


def decision(error: Exception) -> RetryAction:
    return RETRY_POLICY.evaluate(error, try_number=1, max_tries=3).action


@pytest.mark.parametrize("error", [InfrastructureError("no route"), DiskFull("full")])
def test_what_may_come_back_is_tried_again(error):
    assert decision(error) is RetryAction.RETRY


@pytest.mark.parametrize(
    "error",
    [ItemsFailed("3 of 9"), RunFailed("3"), PlanRefused("typo"), ItemFailed("x"), KeyError("x")],
)
def test_what_would_fail_the_same_way_is_not(error):
    assert decision(error) is RetryAction.FAIL


def test_anything_else_has_airflows_ordinary_retries():
    assert decision(MemoryError()) is RetryAction.DEFAULT
