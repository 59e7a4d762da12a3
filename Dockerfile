# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Without `dev`: the image has no use for an embedded PostgreSQL.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features \
 && install -D target/release/forebay /out/forebay \
 && install -d /out/journal

FROM debian:bookworm-slim
# Root certificates, for databases that are reached by TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/forebay /usr/local/bin/forebay
COPY --from=build --chown=65532:65532 /out/journal /var/lib/forebay/journal
ENV JOURNAL_DIR=/var/lib/forebay/journal
VOLUME /var/lib/forebay/journal
EXPOSE 8000 8001
USER 65532:65532
# Kubernetes ignores this and asks the admin port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["forebay", "healthcheck"]
ENTRYPOINT ["forebay"]
CMD ["serve"]
