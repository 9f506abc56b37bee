# friendlyhello: docker build --tag=friendlyhello .
ARG PYTHON_IMAGE=python:3.13-slim
# Where the source is (https://…), which commit it is, and when the image was made (RFC 3339). If one
# of the three is missing, the image gets no label for any of them.
ARG SOURCE
ARG COMMIT
ARG CREATED

FROM ${PYTHON_IMAGE} AS build
# This layer reads the requirements only, so a change of the program does not build it again.
COPY requirements.txt /tmp/requirements.txt
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install \
      --no-cache-dir --disable-pip-version-check \
      --require-hashes --requirement /tmp/requirements.txt

FROM ${PYTHON_IMAGE} AS program
WORKDIR /app
COPY . .
# Compiled, as the user cannot write. All users may read the files: in a checkout with umask 077,
# only the owner may.
# /version tells the commit: docker build --build-arg=COMMIT=$(git rev-parse HEAD)
ARG COMMIT
RUN python -m compileall -q . && if [ "$COMMIT" ]; then echo "$COMMIT" >COMMIT; fi && chmod -R a+rX,go-w .

# https://specs.opencontainers.org/image-spec/annotations/. These labels have a stage of their own,
# because an argument without a value would make an empty label.
FROM ${PYTHON_IMAGE} AS image

FROM ${PYTHON_IMAGE} AS image-of-source
ARG SOURCE
ARG COMMIT
ARG CREATED
ARG URL=$SOURCE
ARG DOCUMENTATION=$SOURCE
LABEL org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.url="$URL" \
      org.opencontainers.image.documentation="$DOCUMENTATION"

FROM image${SOURCE:+${COMMIT:+${CREATED:+-of-source}}}
LABEL org.opencontainers.image.title="friendlyhello" \
      org.opencontainers.image.description="A page that greets, names its host and counts visits in Redis" \
      org.opencontainers.image.version="1.1.0"
COPY --from=build /opt/venv /opt/venv
COPY --from=program /app /app
WORKDIR /app
# compose.yaml needs a name for the user.
RUN echo app:x:10001:10001::/app:/usr/sbin/nologin >>/etc/passwd
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NAME=World
# The user is a number, so that an orchestrator can see that it is not root. Docker 20.10 and newer
# lets this user bind port 80, in a network that the container does not share with the host.
USER 10001:10001
EXPOSE 80
HEALTHCHECK --interval=4s --timeout=3s --retries=2 \
  CMD ["python", "server.py", "--healthcheck"]
CMD ["python", "server.py"]
