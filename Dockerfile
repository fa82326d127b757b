# The image of every Airflow component, and in the stage `riak` a Riak for the profile of that name.
# None of it was built where it was written: tests/test_compose.py runs the install step of the
# first stage in a fresh virtual environment, and checks what can be read.

FROM python:3.12.12-slim-bookworm AS packages
RUN python -m venv /opt/venv
COPY requirements.txt /opt/requirements.txt
# pyvips is published as source alone; it is pure Python with the binary wheel beside it, so no
# compiler is needed.
RUN /opt/venv/bin/python -m pip install --no-cache-dir --require-hashes --only-binary :all: --no-binary pyvips -r /opt/requirements.txt
RUN /opt/venv/bin/python -m pip check


# Riak publishes packages and no image. Its documentation names this address and no checksum, so
# give that of a package you trust: without RIAK_DEB_SHA256 the build stops here.
FROM ubuntu:24.04 AS riak
ARG RIAK_DEB_SHA256
RUN test -n "$RIAK_DEB_SHA256" || { echo 'Set RIAK_DEB_SHA256 in .env: see docs/INSTALL.md.' >&2; exit 1; }
ADD --checksum=sha256:${RIAK_DEB_SHA256} https://files.tiot.jp/riak/kv/3.2/3.2.5/ubuntu/noble64/riak_3.2.5-OTP25_amd64.deb /opt/riak.deb
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends /opt/riak.deb \
    && rm -rf /var/lib/apt/lists/* /opt/riak.deb \
    && sed -i -e 's/^listener.http.internal = .*/listener.http.internal = 0.0.0.0:8098/' /etc/riak/riak.conf
USER riak
EXPOSE 8098
VOLUME /var/lib/riak
CMD ["riak", "foreground"]


FROM python:3.12.12-slim-bookworm AS airflow
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 50000 --user-group --home-dir /opt/airflow --no-create-home airflow \
    && install -d -o airflow -g airflow /opt/airflow/logs /opt/airflow/tmp \
        /srv/imageflows/upload /srv/imageflows/assets /srv/imageflows/renders
COPY --from=packages /opt/venv /opt/venv
COPY dags /opt/airflow/dags
COPY plugins /opt/airflow/plugins
COPY include /opt/airflow/include
COPY config /opt/airflow/config
# Settings come from the environment; without the file Airflow would write one. The probes of the
# official Helm chart call /entrypoint.
RUN echo '# Settings are in the environment.' > /opt/airflow/airflow.cfg \
    && printf '#!/bin/sh\nexec "$@"\n' > /entrypoint \
    && chmod 755 /entrypoint
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/airflow/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/airflow/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/airflow/include:/opt/airflow/plugins \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/opt/airflow/tmp
WORKDIR /opt/airflow
USER airflow
EXPOSE 8080
ENTRYPOINT ["tini", "--"]
CMD ["airflow", "version"]
