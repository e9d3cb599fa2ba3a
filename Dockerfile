# syntax=docker/dockerfile:1
# One static binary in an otherwise empty image. Needs BuildKit, the default since Docker 23.
#   docker build -t dnsfleet .
#   docker buildx build --platform linux/amd64,linux/arm64 -t registry.example/dnsfleet --push .

# The build runs on the builder's own platform and cross-compiles, so no emulator is needed.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libcap2-bin tzdata \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH
ARG RELEASE=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.release=$RELEASE" -o /out/dnsfleet ./cmd/dnsfleet
# The capability to bind port 53 sits on the file, because the process is not root. BuildKit's COPY --from keeps it, as
# long as no --chown follows: changing a file's owner drops its capabilities.
RUN setcap cap_net_bind_service=+ep /out/dnsfleet \
 && install -d -m 0700 -o 65532 -g 65532 /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=build --chown=65532:65532 --chmod=0700 /out/data /var/lib/dnsfleet
COPY --from=build /out/dnsfleet /dnsfleet
ENV DNSFLEET_DATA_DIR=/var/lib/dnsfleet \
    DNSFLEET_LOG_FORMAT=json \
    DNSFLEET_WEB_LISTEN=:8053
USER 65532:65532
VOLUME /var/lib/dnsfleet
EXPOSE 53/udp 53/tcp 8053/tcp
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s --retries=3 CMD ["/dnsfleet", "health"]
ENTRYPOINT ["/dnsfleet"]
CMD ["primary"]
