"""A stand-in for WeChat's mini-program server interfaces: a program of its own, run as ``python -m sandbox``.

It answers with WeChat's shapes and refuses what WeChat refuses, so that the product's client runs unchanged against
it, and it sends the message pushes that WeChat would send. It shares no code with the product: a misreading of the
protocol cannot hide by being made once for both sides.

Under ``/control`` it plays what WeChat and the people with their phones do by themselves (a login, a tap on "accept",
a verdict, an outage), and tells what it received. ``/`` shows that as a page.
"""
