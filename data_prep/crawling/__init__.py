"""A crawl: addresses that may be fetched, the frontier that survives being killed, Scrapy's spider, its process."""
