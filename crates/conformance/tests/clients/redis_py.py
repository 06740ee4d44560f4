"""redis-py against a server: connects with the library's defaults, with RESP2 and with RESP3, blocking and asyncio, and does
what services do: values, pipelines, transactions, scripts, scans, publish and subscribe, locks.

Usage: redis_py.py PORT MAJOR    (MAJOR is the version of redis-py that must be installed)
Ends with "all good" and exit code 0, or with a traceback.
"""

import asyncio
import sys
import threading

import redis
import redis.asyncio

PORT = int(sys.argv[1])
MAJOR = sys.argv[2]


def protocols():
    """The library's defaults first, then each protocol by name."""
    return [{}, {"protocol": 2}, {"protocol": 3}]


def values(client):
    assert client.ping() is True
    assert client.set("greeting", "hello", ex=60) is True
    assert client.get("greeting") == b"hello"
    assert 0 < client.ttl("greeting") <= 60
    assert client.set("greeting", "other", nx=True) is None
    assert client.set("greeting", "next", get=True) == b"hello"
    assert client.incrby("counter", 5) == 5
    assert client.incrbyfloat("float", 0.5) == 0.5
    assert client.mset({"a": 1, "b": 2}) is True
    assert client.mget("a", "b", "none") == [b"1", b"2", None]
    assert client.exists("a", "b", "none") == 2
    assert client.delete("a", "b") == 2
    assert client.type("greeting") == b"string"
    assert client.get("none") is None


def collections(client):
    assert client.hset("hash", mapping={"f": "v", "g": 1}) == 2
    assert client.hgetall("hash") == {b"f": b"v", b"g": b"1"}
    assert client.rpush("list", "a", "b", "c") == 3
    assert client.lrange("list", 0, -1) == [b"a", b"b", b"c"]
    assert client.lpop("list", 2) == [b"a", b"b"]
    assert client.sadd("set", "x", "y") == 2
    assert set(client.smembers("set")) == {b"x", b"y"}
    assert client.zadd("zset", {"one": 1, "two": 2.5}) == 2
    assert client.zscore("zset", "two") == 2.5
    pairs = client.zrange("zset", 0, -1, withscores=True)
    assert [tuple(pair) for pair in pairs] == [(b"one", 1.0), (b"two", 2.5)], pairs
    assert client.zincrby("zset", 1, "one") == 2.0
    assert client.zrangebyscore("zset", "-inf", "+inf") == [b"one", b"two"]
    assert client.zremrangebyrank("zset", 0, 0) == 1


def scans(client):
    client.mset({f"scan:{number}": number for number in range(500)})
    assert len(set(client.scan_iter("scan:*", count=50))) == 500
    client.hset("bighash", mapping={f"f{number}": number for number in range(400)})
    assert len(dict(client.hscan_iter("bighash"))) == 400


def pipelines(client):
    with client.pipeline(transaction=False) as pipe:
        for number in range(100):
            pipe.set(f"pipe:{number}", number)
            pipe.get(f"pipe:{number}")
        replies = pipe.execute()
    assert replies[1::2] == [str(number).encode() for number in range(100)]
    with client.pipeline() as pipe:
        pipe.watch("greeting")
        pipe.multi()
        pipe.set("greeting", "in a transaction").get("greeting")
        assert pipe.execute() == [True, b"in a transaction"]
    with client.pipeline() as pipe:
        pipe.watch("greeting")
        client.set("greeting", "changed meanwhile")
        pipe.multi()
        pipe.get("greeting")
        try:
            pipe.execute()
            raise AssertionError("a watched key changed and the transaction ran")
        except redis.WatchError:
            pass


def errors(client):
    try:
        client.lpush("greeting", "x")
        raise AssertionError("a list command worked on a string")
    except redis.ResponseError as error:
        assert str(error).startswith("WRONGTYPE"), error


def scripts(client):
    client.script_flush()
    add = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert add(keys=["scripted"], args=[3]) == 3
    assert add(keys=["scripted"], args=[4]) == 7
    assert client.eval("return {1, 'two', ARGV[1]}", 0, "three") == [1, b"two", b"three"]
    with client.lock("lock:one", timeout=10):
        assert client.exists("lock:one") == 1
    assert client.exists("lock:one") == 0


def messages(client):
    subscriber = client.pubsub()
    subscriber.subscribe("news")
    subscriber.psubscribe("n*")
    kinds = [next_message(subscriber)["type"] for _ in range(2)]
    assert kinds == ["subscribe", "psubscribe"], kinds
    sender = threading.Thread(target=lambda: client.publish("news", "hello"))
    sender.start()
    sender.join()
    found = sorted((next_message(subscriber) for _ in range(2)), key=lambda message: message["type"])
    assert [(message["type"], message["data"]) for message in found] == [("message", b"hello"), ("pmessage", b"hello")]
    subscriber.unsubscribe()
    subscriber.punsubscribe()
    subscriber.close()


def next_message(subscriber):
    for _ in range(100):
        message = subscriber.get_message(timeout=0.1)
        if message is not None:
            return message
    raise AssertionError("no message within ten seconds")


def administration(client):
    assert client.info("server")["redis_version"].startswith("7.")
    assert client.info()["used_memory"] > 0
    assert client.dbsize() > 0
    assert client.client_setname("tester") is True
    assert client.client_getname() in ("tester", b"tester")
    assert client.client_id() > 0
    assert any(entry["name"] == "tester" for entry in client.client_list())
    assert client.config_get("maxmemory*")["maxmemory-policy"]
    assert client.slowlog_get(10) is not None
    assert client.memory_usage("greeting") > 0
    assert client.command_count() > 100
    assert client.object("encoding", "counter") in ("int", b"int")
    assert client.time()[0] > 1_600_000_000


def blocking_client(options):
    client = redis.Redis(host="127.0.0.1", port=PORT, **options)
    client.flushall()
    for step in (values, collections, scans, pipelines, errors, scripts, messages, administration):
        step(client)
    text = redis.from_url(f"redis://127.0.0.1:{PORT}/3", decode_responses=True, health_check_interval=1, **options)
    text.set("text", "ü")
    assert text.get("text") == "ü"
    assert client.get("text") is None
    text.close()
    client.close()


async def next_message_of(subscriber):
    for _ in range(10):
        message = await subscriber.get_message(timeout=5)
        if message:
            return message
    raise AssertionError("no message came")


async def asyncio_client(options):
    client = redis.asyncio.from_url(f"redis://127.0.0.1:{PORT}", max_connections=20, decode_responses=True, **options)
    await client.flushdb()
    assert await client.set("k", "v", ex=100, nx=True) is True
    for _ in range(10):
        assert await asyncio.gather(*(client.get("k") for _ in range(20))) == ["v"] * 20
    async with client.pipeline(transaction=True) as pipe:
        assert await pipe.incr("n").incr("n").execute() == [1, 2]
    assert [key async for key in client.scan_iter("*")] != []
    subscriber = client.pubsub()
    await subscriber.subscribe("channel")
    # Nothing orders a subscription and what another connection publishes before the subscription is confirmed.
    assert (await next_message_of(subscriber))["type"] == "subscribe"
    await client.publish("channel", "payload")
    assert (await next_message_of(subscriber))["data"] == "payload"
    await subscriber.aclose()
    await client.aclose()


def main():
    assert redis.__version__.split(".")[0] == MAJOR, redis.__version__
    for options in protocols():
        blocking_client(options)
        asyncio.run(asyncio_client(options))
        print(f"redis-py {redis.__version__} {options or 'defaults'}: ok")
    print("all good")


if __name__ == "__main__":
    main()
