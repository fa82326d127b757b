"""A notifier for the webhooks of chats: Slack, Mattermost, Rocket.Chat and others alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow.sdk import BaseHook
from airflow.sdk.bases.notifier import BaseNotifier

from imagecore.errors import ImageflowsError
from imageflows.params import setting

if TYPE_CHECKING:
    import urllib3

SECONDS = 10.0
"""For one request. The DAG processor gives a callback 50 s ([dag_processor]
dag_file_processor_timeout)."""


class NotSent(ImageflowsError):
    """A message was not taken."""


class WebhookNotifier(BaseNotifier):
    """Posts `{"text": message}` as JSON to the address of a connection.

    The connection, of type `http`: `host` (a whole address, or with `schema` and `port`);
    `password` is added to the address as the rest of its path, for it often is the secret part.
    Extra `field` in place of `text`: `content` for Discord, for instance.

    :param message: the text (templated).
    :param failure_conn_id: the connection; as it comes, `[imageflows] failure_conn_id`.
    """

    template_fields = ("message",)

    def __init__(
        self, message: str = "{{ alert.text }}", failure_conn_id: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.message = message
        self.failure_conn_id = failure_conn_id or setting("failure_conn_id", "imageflows_alerts")

    def notify(self, context: Any) -> None:
        """Send the message.

        Raises:
            NotSent: nobody took it. The address is not in the text, for it may be a secret.
        """
        import urllib3
        from urllib3.exceptions import HTTPError

        connection = BaseHook.get_connection(self.failure_conn_id)
        body = {connection.extra_dejson.get("field", "text"): self.message}
        address = _address(connection)
        # Only what was never sent is sent again: a chat has no use for the same message twice.
        again = urllib3.Retry(total=None, connect=2, read=0, redirect=0, status=0, other=0)
        try:
            with _pool(address, timeout=SECONDS, retries=again) as pool:
                answer = pool.request("POST", address, json=body, redirect=False)
        except HTTPError as error:
            what = type(getattr(error, "reason", None) or error).__name__
            raise self._not_sent(f"its server does not answer ({what})") from None
        if answer.status >= 300:
            raise self._not_sent(f"its server answers {answer.status}")

    def _not_sent(self, why: str) -> NotSent:
        return NotSent(
            f"The message could not be sent with the connection {self.failure_conn_id}: {why}. "
            "Check its host and password."
        )


def _pool(address: str, **kwargs: Any) -> urllib3.PoolManager:
    """A pool that goes through the proxy of the environment, which urllib3 does not do itself."""
    import urllib3

    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, **kwargs)
    return urllib3.PoolManager(**kwargs)


def _address(connection: Any) -> str:
    address = (connection.host or "").rstrip("/")
    if "://" not in address:
        port = f":{connection.port}" if connection.port else ""
        address = f"{connection.schema or 'https'}://{address}{port}"
    return f"{address}/{connection.password}" if connection.password else address
