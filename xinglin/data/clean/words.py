"""The word lists of the cleaning rules: what adverts, courtesies, thanks, animals and reversed meanings look like.

All come from reading public sets (Toyhom, Huatuo-26M, CMtMedQA); they are lists of wordings, not
medical facts. `REVERSED` and `FINGERPRINTS` name the traces of one synonym machine whose output is in circulation.
"""

from __future__ import annotations

import re

# Automatic synonym replacement turned these into their opposites, or into another act. Counted in the answers of the
# published Toyhom file (7,644 rows): 184 放慢康复速度, 432 放柔, 196 麻醉乙肝, 54 横向散播.
REVERSED: dict[str, re.Pattern[str]] = {
    "放慢康复": re.compile(r"放慢[^，。；]{0,6}(?:康复|痊愈)"),
    "放柔病情": re.compile(
        r"(?<!声音)(?<!语气)(?<!动作)(?<!音量)(?<!力度)(?<!语调)(?<!手法)(?<!灯光)放柔(?!声音|语[气调]|动作|音量|力度|手法|灯光)"
    ),
    "麻醉疫苗": re.compile(r"麻醉(?:乙肝|[^，。；]{0,10}(?:疫苗|球蛋白|免疫蛋白|干扰素|胰岛素))"),
    "横向散播": re.compile(r"横向散播"),
    "降低信心": re.compile(r"降低[^，。；]{0,12}信心[^，。；]{0,4}[，。].{0,12}(?:康复|恢复|有利|才能)"),
    "降低受孕": re.compile(r"降低(?:分娩|受孕|怀孕)(?:几率|机会)"),
    "血压下降": re.compile(r"血压容易下降.{0,20}(?:脑出血|高血压)"),
    "辛辣打击": re.compile(r"辛辣打击|打击性(?:的)?食物"),
    "预防拔出": re.compile(r"预防工作.{0,12}拔出"),
    "痉挛疼痛": re.compile(r"剧烈疼痛(?:小动脉|的?(?:血管|平滑肌))"),
}
# Wordings of the same machine that are harmless alone but hardly ever written by people; none of ten thousand answers
# of another set has 引来, 散播, 动用 or 临床诊断上 in these places.
FINGERPRINTS = re.compile(
    r"引来(?:的|来)|引来[^，。；]{0,6}(?:症状|并发症|疾病)|散播(?:途径|疾病|给)?|动用(?:药|西药|中药|抗)|临床诊断上"
    r"|预防工作(?:工作|好|病|的|乙|感|传)|除了就是|除了有|再次出现.{0,30}再次出现|及时救治|驱毒|诊病|忧心|服食药物|彻底恢复"
)
ADVERT = re.compile(
    r"(?<![\d.])(?:1[3-9]\d{9}|400-?\d{3}-?\d{4}|0\d{2,3}-\d{7,8})(?!\d)"  # telephone numbers in China
    r"|(?i:QQ|扣扣|微信|威信|VX|加群|公众号)\s*(?:号|群)?\s*(?:[:：]|是|为|加)?\s*[\da-zA-Z_-]{5,}|加我\s*(?:扣|微|Q|v)"
    r"|点击(?:直接)?我|点击[^，。；]{0,10}(?:咨询|交流|与我|在线专家|名片)"
    r"|(?:我院|本院|我们医院)[^。；]{0,16}(?:采[用取]|研发|专利|网址|网站|专家|特色|疗法|欢迎|康复出院)"
    r"|(?:进|登录|登陆|浏览|访问)[^。，；]{0,6}(?:我们|本院|我院|医院|医生)[^。，；]{0,4}(?:网址|网站|官网)"
    r"|(?:免费|在线)(?:热线|预约)|(?:咨询|预约|健康|服务)(?:热线|电话)\s*[:：是为]?\s*\d|来电咨询|欢迎(?:来电|来院|到我院)"
    r"|(?:专利|独家|祖传|秘制)(?:中药|配方)|(?:治愈率|有效率)(?:高?达|在)?\s*(?:9\d|100)(?:\.\d+)?\s*[%％](?:以上)?的?(?:疗法|医院|技术)"
)
_WHOM = r"(?:您|你|患者|宝宝|孩子|大家|小孩|早日|身体|全家|病人|和|及|家人|的|天天|永远|生活|一切|孕期|父亲|母亲)"
_SENTENCE = r"[^。！!？?\n]"
# A crisis line belongs into an answer
HELP_LINE = re.compile(r"心理|危机|自杀|自伤|援助|中毒急救|疾控|家暴|报警")
COURTESY = re.compile(
    rf"(?:^|(?<=[。！!？?\n；;，,~\s”）)]))(?:"
    rf"(?:最后|谨|再次)?[，,]?(?:衷心)?祝(?:愿)?{_WHOM}{{0,6}}(?:恢复)?(?:健康|康复|好|顺利|幸福|快乐|如意|平安|愉快|好孕){_SENTENCE}{{0,6}}"
    rf"|(?:希望|期望){_SENTENCE}{{0,22}}(?:帮助|帮到|协助){_SENTENCE}{{0,12}}"
    rf"|(?:谢谢|感谢){_SENTENCE}{{0,10}}|(?:望|请|盼|敬请)(?:您|你)?(?:及时)?采纳{_SENTENCE}{{0,8}}"
    rf"|如果?{_SENTENCE}{{0,20}}(?:满意|有用){_SENTENCE}{{0,16}}(?:采纳|[好点]?评价?){_SENTENCE}{{0,10}}"
    rf"|以上是对“[^”\n]{{0,80}}”这个问题的建议{_SENTENCE}{{0,30}}"
    r")[。！!~～.，,；;\s]*$"
)
THANKS = re.compile(r"谢|明白了|知道了|了解了|好的|清楚了")
ASKING = re.compile(
    r"[?？吗呢]|怎么|什么|多久|哪|如何|是否|能不能|可不可以|会不会|要不要|请问|多少|但是?|不过|还有点|另外"
)
POLITE = re.compile(
    r"不(?:用|必)?(?:客气|谢)|别客气|祝|早日|随时|很高兴|欢迎|如有|如果?(?:您|你)?(?:还|有)|希望|好的|非常好|加油|再见|应该的|保持联系|照顾好"
)
# The animal is the patient. Bites, scratches, rabies, allergies and pets in the house are people's matters.
ANIMAL = re.compile(
    r"犬瘟|犬细小|猫瘟|宠物医院|兽医(?!药|学)|(?:狗狗?|(?<!熊)猫咪?|幼犬|幼猫|宠物|泰迪|金毛|边牧)的?"
    r"(?:症状|体温|呕吐|拉稀|腹泻|发烧|发热|不吃|精神|传染性|疫苗|驱虫|怀孕|生病|治疗|用药)|给(?:狗狗?|猫咪?|宠物)(?:吃|喂|打|用|输)"
)
PEOPLE = re.compile(r"狂犬|咬|抓伤|抓破|舔|过敏|猫叫综合征|弓形虫|中兽医|人畜|接触")
MASKED = re.compile(r"[A-Za-z]#{2,}|#{2,}[A-Za-z]|[\u4e00-\u9fff]([a-zA-Z])[\u4e00-\u9fff]\1[\u4e00-\u9fff]")
CODE_OR_FORMULA = re.compile(r"```|\$\$|\\frac|<!DOCTYPE|def \w+\(|function\s*\(|SELECT .+ FROM")
HEADING = re.compile(
    r"(?:医生[询寻]问|指导意见|意见建议|病情分析|问题分析|因不能面诊[^。\n]{0,40})\s*[:：]?\s*[。？，,]*\s*$"
)
END = re.compile(r"[。！？!?；;…~～.”\"’）)\]】》>}」』%％]\s*$|```\s*$")
OPEN_END = re.compile(r"(?:[、：:（(《“]|(?:因为|所以|而且|以及|或者|并且|如果|但是|建议|例如|比如|包括|由于))\s*$")
