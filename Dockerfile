# One image for all three processes. By default it serves the code location; the webserver and the
# daemon are the same image with another command (docs/deployment.md):
#
#   docker build -t file-connector .
#   docker run file-connector                                        # code server, port 4000
#   docker run file-connector dagster-webserver -h 0.0.0.0 -p 3000   # UI (has no login of its own)
#   docker run file-connector dagster-daemon run                     # schedules and the run queue
#
# It holds no secret: credentials come as environment variables or mounted files when it runs.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY file_connector ./file_connector
RUN /opt/venv/bin/pip install -c constraints.txt .

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 dagster \
    && install -d -o dagster -g dagster /srv/file-connector /srv/file-connector/.file_connector
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv/file-connector
COPY dagster.yaml endpoints.yaml ./
# Webserver and daemon find the code server by name; the location keeps the name it has in
# development, because Dagster remembers which schedules are on by it.
RUN printf '%s\n' 'load_from:' '  - grpc_server:' '      host: {env: CODE_SERVER_HOST}' \
    '      port: 4000' '      location_name: file_connector' > workspace.yaml
ENV PATH=/opt/venv/bin:$PATH \
    CODE_SERVER_HOST=code \
    PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/srv/file-connector \
    DAGSTER_DISABLE_TELEMETRY=yes
USER dagster
# State of the mock database and of SQLite history; unused when both databases are Postgres.
VOLUME /srv/file-connector/.file_connector
EXPOSE 4000 3000
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 CMD \
    case "$(tr '\0' ' ' < /proc/1/cmdline)" in \
        *webserver*) python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:3000/server_info', timeout=9)" ;; \
        *daemon*) dagster-daemon liveness-check ;; \
        *) dagster api grpc-health-check -p 4000 ;; \
    esac
CMD ["dagster", "code-server", "start", "-h", "0.0.0.0", "-p", "4000", "-m", "file_connector.definitions"]
