package redis

import (
	"fmt"
	"hash/crc32"

	"dnsfleet/internal/fleet"
)

// buckets is fixed for ever: another number would lose every instance.
const buckets = 64

// keys names the keys. What stands in braces decides the slot on a cluster.
type keys struct{ prefix string }

func bucketOf(instanceID string) int { return int(crc32.ChecksumIEEE([]byte(instanceID)) % buckets) }

func (k keys) in(bucket int, rest string) string {
	return fmt.Sprintf("%s:{b%02d}:%s", k.prefix, bucket, rest)
}

func (k keys) stats(id string) string    { return k.in(bucketOf(id), "stats:"+id) }
func (k keys) instance(id string) string { return k.in(bucketOf(id), "instance:"+id) }
func (k keys) seen(bucket int) string    { return k.in(bucket, "seen") }

func (k keys) slices(size fleet.Size, id string) string {
	return k.in(bucketOf(id), "slices:"+size.String()+":"+id)
}

// all are an instance's keys in the order in which the scripts expect them.
func (k keys) all(id string) []string {
	keys := []string{k.stats(id), k.instance(id), k.seen(bucketOf(id))}
	for _, size := range fleet.Sizes() {
		keys = append(keys, k.slices(size, id))
	}
	return keys
}

func (k keys) tokens() string           { return k.prefix + ":{tokens}" }
func (k keys) held() string             { return k.prefix + ":{tokens}:held" }
func (k keys) policy() string           { return k.prefix + ":{policy}:current" }
func (k keys) settings() string         { return k.prefix + ":{settings}" }
func (k keys) session(id string) string { return k.prefix + ":session:" + id }
func (k keys) events() string           { return k.prefix + ":events" }
