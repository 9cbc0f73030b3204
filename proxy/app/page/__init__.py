"""The set-up page: HTML for a browser on this machine, without a build step and without need of JavaScript.

wire       what is asked and what is answered, as values; the bounded reading of a request
guard      who may ask: Host, one-time links, sessions, CSRF tokens, rates
site       from request to answer: routes, templates, static files, error pages
service    the listening sockets, and the bounds of each connection

Every other module here is a topic: `ROUTES`, and the handlers behind them.
"""
