// fasthttp with redigo.
package main

import (
	"fmt"
	"html"
	"log"
	"os"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/valyala/fasthttp"
)

func main() {
	name, hostname := os.Getenv("NAME"), "unknown"
	if host, err := os.Hostname(); err == nil {
		hostname = host
	}
	start := fmt.Sprintf("<h3>Hello %s!</h3><b>Hostname:</b> %s<br/><b>Visits:</b> ",
		html.EscapeString(name), html.EscapeString(hostname))

	limit := redis.DialConnectTimeout(2 * time.Second)
	read := redis.DialReadTimeout(2 * time.Second)
	write := redis.DialWriteTimeout(2 * time.Second)
	pool := &redis.Pool{
		MaxIdle:   64,
		MaxActive: 64,
		Wait:      true,
		Dial: func() (redis.Conn, error) {
			return redis.DialURL(os.Getenv("REDIS_URL"), limit, read, write)
		},
	}

	server := &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(c *fasthttp.RequestCtx) {
		connection := pool.Get()
		visits, err := redis.Int64(connection.Do("INCR", "counter"))
		connection.Close()
		c.SetContentType("text/html; charset=utf-8")
		if err != nil {
			fmt.Fprint(c, start, "<i>cannot connect to Redis, counter disabled</i>")
			return
		}
		fmt.Fprintf(c, "%s%d", start, visits)
	}}
	log.Fatal(server.ListenAndServe("127.0.0.1:" + os.Getenv("PORT")))
}
