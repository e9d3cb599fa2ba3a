-- +goose NO TRANSACTION
-- +goose Up

-- One row for each query. The order serves one instance's hour, and, hour by hour, the newest rows of the fleet.
CREATE TABLE IF NOT EXISTS dns_queries{{.Local}}{{.OnCluster}} (
    ts               DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    instance_id      LowCardinality(String),
    client_ip        LowCardinality(String),
    client_name      LowCardinality(String),
    protocol         LowCardinality(String),
    qname            String CODEC(ZSTD(1)),
    qtype            LowCardinality(String),
    qclass           LowCardinality(String),
    outcome          LowCardinality(String),
    rcode            LowCardinality(String),
    duration_ms      Float32 CODEC(ZSTD(1)),
    upstream_address LowCardinality(String),
    list             LowCardinality(String),
    dnssec           LowCardinality(String)
)
ENGINE = {{.MergeTree}}
PARTITION BY toYYYYMMDD(ts)
ORDER BY (toStartOfHour(ts), instance_id, ts)
TTL toDateTime(ts) + toIntervalSecond({{.RetentionSeconds}})
SETTINGS ttl_only_drop_parts = 1, {{.DedupWindow}};

-- What a minute of an instance came to, by outcome and upstream. Quantiles have a relative error of 1 %, the number of
-- clients has a standard error of 0.6 %. latency is in nanoseconds: below 1, quantilesDD is off by up to 3 % (it rounds
-- negative logarithms the wrong way).
CREATE TABLE IF NOT EXISTS dns_queries_1m{{.Local}}{{.OnCluster}} (
    minute           DateTime('UTC') CODEC(Delta, ZSTD(1)),
    instance_id      LowCardinality(String),
    outcome          LowCardinality(String),
    upstream_address LowCardinality(String),
    queries          SimpleAggregateFunction(sum, UInt64),
    duration_sum     SimpleAggregateFunction(sum, Float64),
    latency          AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Float32),
    clients          AggregateFunction(uniqCombined64If(15), String, UInt8)
)
ENGINE = {{.AggregatingMergeTree}}
PARTITION BY toYYYYMMDD(minute)
ORDER BY (toStartOfHour(minute), instance_id, minute, outcome, upstream_address)
TTL minute + toIntervalSecond({{.RetentionSeconds}})
SETTINGS ttl_only_drop_parts = 1, index_granularity = 1024, {{.DedupWindow}};

CREATE MATERIALIZED VIEW IF NOT EXISTS dns_queries_1m_mv{{.OnCluster}} TO dns_queries_1m{{.Local}} AS
SELECT
    toStartOfMinute(ts) AS minute,
    instance_id,
    outcome,
    upstream_address,
    count() AS queries,
    sum(toFloat64(duration_ms)) AS duration_sum,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(toFloat32(duration_ms * 1e6)) AS latency,
    uniqCombined64IfState(15)(
        if(client_name = '', toString(client_ip), toString(client_name)), client_ip != '' OR client_name != ''
    ) AS clients
FROM dns_queries{{.Local}}
GROUP BY minute, instance_id, outcome, upstream_address;
{{if .Cluster}}
CREATE TABLE IF NOT EXISTS dns_queries{{.OnCluster}} AS dns_queries_local
ENGINE = Distributed({{.Cluster}}, currentDatabase(), dns_queries_local, cityHash64(instance_id));

CREATE TABLE IF NOT EXISTS dns_queries_1m{{.OnCluster}} AS dns_queries_1m_local
ENGINE = Distributed({{.Cluster}}, currentDatabase(), dns_queries_1m_local, cityHash64(instance_id));
{{end}}
