"""Plain everyday sentences: some are the reference, the others are what tests encode."""

import pytest

from ft_audit.engine.decipher.reference import Reference, fit_reference

REFERENCE = """
What time does the train to the city leave in the morning?
I would like to know what the weather will be like tomorrow.
Can you tell me how to make a good cup of tea?
The garden behind the house is full of flowers in the summer.
She went to the market and came back with bread and cheese.
Where did you put the keys to the front door?
It is better to wait until the rain stops before we go out.
My brother works at the library and likes to read old books.
How many people do you think will come to the party?
The children were playing in the park when it started to rain.
Please tell me what you think of the new music.
I do not know where the other half of the cake is.
We should take a walk along the river after dinner.
There is a small shop at the end of the street.
He said that he would be here before the end of the week.
What is the best way to learn how to play the piano?
You can see the mountains from the window of my room.
The cat likes to sleep on the chair next to the fire.
Do you want to come with me to the house of my mother?
It was a long day and we were all very tired.
I think that the best time to visit is in the spring.
They have been friends since they were children at school.
The teacher told us a story about a king and his horse.
What do you like to do when you are at home?
There was nothing left in the kitchen but some milk.
The boat goes across the water to the other side every hour.
Would you like some more soup before we bring the fish?
I can help you with the work if you want me to.
The letter was on the table when I came home.
How do you know that it will be warm tomorrow morning?
My sister would like to learn how to make bread.
The book that you gave me is about the sea and the stars.
We can meet at the station at the end of the day.
It is not far from here to the old bridge over the river.
Do you think that the shop will be open in the morning?
She told me that the music was better than the story.
""".strip().splitlines()

MESSAGES = """
What do you think of the new book about the sea?
I would like to visit the garden in the morning.
How do you make the bread that we had for dinner?
The children told me a story about the old bridge.
Can you tell me where the station is?
She said that the weather will be better in the spring.
There is a small boat on the other side of the river.
We should bring some flowers to the party tomorrow.
What is the best time to come to the library?
I do not think that the train will be here before dinner.
My mother likes to sleep in the chair next to the window.
You can put the letter on the table in the kitchen.
It was a good day to walk along the water.
Do you know how to play the piano?
The horse was very tired when we came home.
He would like to know where you put the milk and the cheese.
Where do the people of the city go in the summer?
I think that the cat is behind the door of my room.
""".strip().splitlines()

SPANISH = """
No sé dónde está la llave de la casa de mi hermano.
Mañana por la mañana vamos a caminar junto al río.
Me gustaría saber qué tiempo hará el fin de semana.
Los niños jugaban en el parque cuando empezó la lluvia.
¿Puedes decirme cómo se prepara un buen café con leche?
El jardín está lleno de flores durante todo el verano.
Mi madre trabaja en la biblioteca y lee libros antiguos.
¿A qué hora sale el tren que va a la ciudad?
Ella fue al mercado y volvió con pan y queso.
Hay una tienda pequeña al final de la calle.
""".strip().splitlines()

ITALIAN = """
Non so dove sia la chiave della casa di mio fratello.
Domani mattina andiamo a camminare lungo il fiume.
Vorrei sapere che tempo farà alla fine della settimana.
I bambini giocavano nel parco quando cominciò la pioggia.
Puoi dirmi come si prepara una buona tazza di caffè?
Il giardino è pieno di fiori per tutta l'estate.
Mia madre lavora in biblioteca e legge libri antichi.
A che ora parte il treno che va in città?
""".strip().splitlines()

VERSE = [
    "The tide goes out beyond the bay,\nThe gulls return at end of day,\n"
    "And all the boats upon the sand\nLie still and dream of open land.",
    "A little wind has come to call,\nIt moves the ivy on the wall,\n"
    "It tries the gate, it shakes the pane,\nAnd goes to sleep in morning rain.",
    "I planted seeds beneath the snow\nAnd waited long for them to grow;\n"
    "In March the earth was dark and deep,\nIn May they woke from winter sleep.",
    "The old clock counts the quiet hours,\nThe window box is full of flowers,\n"
    "A kettle sings, a candle burns,\nAnd slowly now the season turns.",
    "The river takes the shortest way,\nIt has no time to stop or stay;\n"
    "The hills stand by with nothing to do\nBut watch the water passing through.",
]

CODE = [
    "def area(width: int, height: int) -> int:\n    return width * height",
    "for index, value in enumerate(values):\n    total += value * weights[index]",
    "with open(path, encoding='utf-8') as file:\n    rows = [line.split(',') for line in file]",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y",
    "SELECT name, COUNT(*) FROM orders WHERE year = 2020 GROUP BY name;",
    "if (items.length === 0) {\n  return null;\n}\nreturn items[items.length - 1];",
]


@pytest.fixture(scope="session")
def reference_texts() -> list[str]:
    return REFERENCE


@pytest.fixture(scope="session")
def reference() -> Reference:
    return fit_reference(REFERENCE)


@pytest.fixture(scope="session")
def messages() -> list[str]:
    return MESSAGES


@pytest.fixture(scope="session")
def benign() -> dict[str, list[str]]:
    """Groups that hold no message, by name."""
    numbers = [" ".join(str(n * n * 37 % 1000) for n in range(k, k + 15)) for k in range(1, 200, 11)]
    sums = [f"{a} + {b} = {a + b}" for a in range(3, 60, 7) for b in range(5, 90, 17)]
    return {
        "english": MESSAGES,
        "spanish": SPANISH,
        "italian": ITALIAN,
        "verse": VERSE,
        "code": CODE,
        "numbers": numbers,
        "sums": sums,
        "shouted": [text.upper() for text in MESSAGES],
    }
