"""The soak, for two minutes of full load; soak.py says what it does and what must hold.

    soak_test.py BUILD_DIR
"""

import soak
from load import SHARE, TestCase, harness


class Soak(TestCase):
    def test_all_of_it_holds(self):
        counts = soak.soak(max(2 * SHARE, 0.1))
        for what in "pushes", "changes", "plain", "consistent", "crashes":
            self.assertGreater(counts[what], 0, what)


harness.main()
