# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /tally
COPY Cargo.toml Cargo.lock ./
COPY src src
# The caches are mounts, so the program is copied out of them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/tally/target \
    cargo build --release --locked && cp target/release/tally /usr/local/bin/tally
RUN mkdir /var/lib/tally

# glibc and nothing else: no shell, not root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/tally /usr/local/bin/tally
# A new volume takes its owner from here: the program is not root.
COPY --from=build --chown=65532:65532 /var/lib/tally /var/lib/tally
COPY config/docker.toml /etc/tally/tally.toml
EXPOSE 6380 9380
# A stop drains: give it more than server.drain_timeout (docker stop --time, stop_grace_period).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tally"]
CMD ["--config", "/etc/tally/tally.toml"]
