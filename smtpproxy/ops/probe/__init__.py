"""``smtpproxy probe``: what a mail server offers, how its TLS stands, and what early pipelining saves with it.

``run.probe`` is the way in: it looks up a destination (``lookup``), visits each address politely (``visit``), and, if
it is told to, tries an early flight (``trial``).  What was found is plain data (``facts``), which ``text`` shows and
``document`` writes as JSON.  No message is ever sent.
"""
