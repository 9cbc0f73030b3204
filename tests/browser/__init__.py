"""The page in a real browser: Chromium, driven by WebDriver with the standard library alone (`webdriver.py`).

`packages.txt` is what Debian must have; axe-core comes by npm (`package.json`). Screenshots of every page go into
`screenshots/`, in light, dark and at a phone's width.
"""
